"""What measures, for experiments: in the source, not in what is installed"""
