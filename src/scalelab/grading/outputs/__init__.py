"""Write what people read of grades: feedback, tables, the class report."""
