"""Recognisers by name, behind one interface: `pieces.PieceRecogniser`."""
