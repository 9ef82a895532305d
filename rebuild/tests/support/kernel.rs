//! A model of the kernel side: windows, run budget, pieces. Bodies have lengths, not bytes.
