"""How do the states fill the space?"""
