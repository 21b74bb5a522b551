"""One file a family of step types; each turns a claimed step into an outcome and books what it calls."""
