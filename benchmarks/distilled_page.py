def write(found, folder):
    pass
