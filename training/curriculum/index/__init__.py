"""The index of a recipe's clips: columns of fixed width, written once and mapped by every rank."""
