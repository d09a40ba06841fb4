"""Generation: requests, voices, batches, streams.

from model.generation import Generator, Request, Voice
"""

from model.generation.generator import Generator, Piece, Speech
from model.generation.request import Request, Settings
from model.generation.voice import Voice, load_voice

__all__ = ["Generator", "Piece", "Request", "Settings", "Speech", "Voice", "load_voice"]
