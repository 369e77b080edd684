"""One file for each method: all of a paper that other papers do not share."""
