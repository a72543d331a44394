"""What do providers' bills look like? One file a provider; `bill` is what all of them become."""
