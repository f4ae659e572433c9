"""Tables of mixed columns into features, by a schema that is public."""
