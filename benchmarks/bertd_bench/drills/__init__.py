"""What operators do to servers under load, done many times: nobody's call may fail."""
