"""What the library costs, always as a ratio to something measured in the same run: one program each."""
