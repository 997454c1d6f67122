"""Suites: each an options dataclass and a function from a model to typed rows (`rows.SuiteResult`)."""
