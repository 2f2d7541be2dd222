"""What travels between jobd's processes, and how."""
