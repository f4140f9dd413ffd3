"""Programs around an exported model, and the library parts that they share."""
