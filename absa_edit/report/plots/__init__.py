"""The PNG figures of a run; the only package that knows matplotlib."""
