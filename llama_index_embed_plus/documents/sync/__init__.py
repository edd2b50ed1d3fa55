"""A folder + a collection -> the collection holds what the folder holds, now and as it changes."""
