"""Files of records and reports: their paths, atomic writing, validated reading."""
