"""Configuration as a file: `format` reads it, `applying` writes it to the database, `exporting` writes it out."""
