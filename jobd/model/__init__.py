"""Plain values of jobd: states, jobs, messages, errors. No I/O; imports nothing of jobd but itself."""
