"""What several rooms are made of. A part is a function that makes components, or a component with what it does; it
knows no room.
"""
