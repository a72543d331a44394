"""What of prices, budgets and backtests does the management API offer? Its other resources are in policies/api."""
