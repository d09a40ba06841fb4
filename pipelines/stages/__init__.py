"""The stages that one worker takes a recording through."""
