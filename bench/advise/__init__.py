"""From a data set and a budget to a recommendation: which strategy, at what cost, how sure."""
