"""Export to a SIEM: records become events of its format, and sinks deliver them."""
