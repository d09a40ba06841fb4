"""Labels of sound: events, separation, segments, quality."""
