"""The operator catalogue: composable edits of a block, each from a paper."""
