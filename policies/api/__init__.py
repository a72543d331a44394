"""How is the configuration read and changed over HTTP? The management API, /api/v1.

Serializers hold the form, the verb modules hold the rules; console, configuration file and API call the same verbs.
"""
