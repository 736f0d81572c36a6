"""DICOM: series of CT, MR and PET slices, and what was drawn on them (SEG, RTSTRUCT).

Nothing that names a person is read, unless it is asked for by name or belongs into a segmentation that is written; no
unique identifier enters an error.
"""
