"""Pages over what traffic recorded and what it cost. One module per subject; billing/urls.py names them."""
