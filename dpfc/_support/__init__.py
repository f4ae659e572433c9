"""What every part uses and what uses no other part: files, limits, names of columns."""
