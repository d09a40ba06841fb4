"""Labels of a voice: prosody, speaker, gender, emotion, age."""
