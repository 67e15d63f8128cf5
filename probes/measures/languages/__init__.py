"""Do translations lie together?"""
