from .bprw import PromptWeights as PromptWeights, reweight_prompts as reweight_prompts
from .coco import CocoTruth as CocoTruth, Pairs as Pairs, evaluate_coco as evaluate_coco
from .config import BprwConfig as BprwConfig, TraversalConfig as TraversalConfig
from .hierarchy import Traversal as Traversal, mean_root as mean_root, string_ids as string_ids, traverse as traverse
from .prompts import fill_templates as fill_templates, filter_prompts as filter_prompts
from .reliability import measure_pairs as measure_pairs, measure_reliability as measure_reliability
from .retrieval import (
    RetrievalResult as RetrievalResult,
    evaluate_retrieval as evaluate_retrieval,
    nearest_right_and_wrong as nearest_right_and_wrong,
    precision_at_r as precision_at_r,
    rank_candidates as rank_candidates,
    retrieval_scores as retrieval_scores,
)
from .statistics import Interval as Interval, bootstrap as bootstrap, pearson as pearson, spearman as spearman
from .uncertainty import (
    AccuracyBins as AccuracyBins,
    area_under_risk_coverage as area_under_risk_coverage,
    count_words as count_words,
    expected_calibration_error as expected_calibration_error,
    uncertainty_bins as uncertainty_bins,
)
from .uncertainty_scores import logit_scores as logit_scores, neighbour_distance as neighbour_distance
from .zero_shot import (
    PUBLISHED_LOGIT_SCALE as PUBLISHED_LOGIT_SCALE,
    Classifier as Classifier,
    ZeroShotResult as ZeroShotResult,
    aggregate_prompts as aggregate_prompts,
    evaluate_zero_shot as evaluate_zero_shot,
    measure_zero_shot as measure_zero_shot,
    zero_shot_logits as zero_shot_logits,
)
