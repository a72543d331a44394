"""Pages and forms over what an operator configures. One module per subject; policies/urls.py names them."""
