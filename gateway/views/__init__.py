"""Pages that need all three apps. One module per page; gateway/urls.py names them."""
