"""The part that lives in the agent's process: it records what an agent does, hashes content, and ships events.

Nothing here needs more than the standard library, and nothing here may raise into the agent, block it or grow without
bound. The names users import are in `dunetrace` itself.
"""
