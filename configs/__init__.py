"""One config file a method; each has `get_config(arg)`."""
