"""Where an edit goes: one localizer a file, all ending in an `EditPlan`."""
