"""Non-linear least squares over sequences of frames. Knows no faces."""

from tracker.solver.levenberg_marquardt import (
    Linearization,
    Residual,
    Solution,
    SolverConfig,
    SolverError,
    Term,
    Values,
    Variable,
    solve,
    total_cost,
)

__all__ = ["Linearization", "Residual", "Solution", "SolverConfig", "SolverError", "Term", "Values", "Variable", "solve", "total_cost"]
