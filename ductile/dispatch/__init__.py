"""One job from claim to finish."""
