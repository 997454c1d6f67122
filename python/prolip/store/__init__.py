"""Files here and in object stores: atomic writes, locks, typed tables, folders, selections."""
