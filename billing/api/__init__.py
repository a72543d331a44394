"""What of prices and backtests does the management API offer? Its other resources are in policies/api."""
