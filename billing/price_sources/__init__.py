"""Where do list prices come from? One file a source, `listing` is what all of them answer."""
