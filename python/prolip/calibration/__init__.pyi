from .calibration import (
    Calibration as Calibration,
    Evidence as Evidence,
    Subject as Subject,
    fit_calibration as fit_calibration,
    load_calibration as load_calibration,
    save_calibration as save_calibration,
)
from .conformal import class_thresholds as class_thresholds, conformal_threshold as conformal_threshold
from .fitting import (
    fit_pairs as fit_pairs,
    fit_temperature as fit_temperature,
    label_shares as label_shares,
    log_prior as log_prior,
)
from .search import (
    KnownQueries as KnownQueries,
    Limits as Limits,
    SearchCalibration as SearchCalibration,
    fit_queries as fit_queries,
    load_search_calibration as load_search_calibration,
    save_search_calibration as save_search_calibration,
)
