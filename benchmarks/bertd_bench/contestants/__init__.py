"""What bertd is compared with, and bertd itself: each contestant in a process of its own.

A module here is imported by the interpreter that its library is installed for, which may hold
neither bertd nor pydantic. At its top it imports the standard library and numpy alone.
"""
