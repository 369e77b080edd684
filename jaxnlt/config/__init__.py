"""What config files and the command line share: fields, their ranges, flags."""
