"""What an installation costs: packages, bytes, seconds until the first answer."""
