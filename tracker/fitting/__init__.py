"""Fitting: a least-squares solver that knows no faces, residuals that know no files, and the stages that join them."""
