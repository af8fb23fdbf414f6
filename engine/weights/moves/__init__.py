"""How weights come to where they compute, whole or block by block, and leave again."""
