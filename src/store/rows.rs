//! Rows of any table as the parameters of a statement, and the conditions that name many rows.

use std::fmt::Write as _;

use sea_orm::{
    DbBackend, EntityTrait, IdenStatic as _, Iterable as _, ModelTrait, Statement, Value,
    sea_query::{ArrayType, ValueType},
};

/// A statement while it is written.
pub struct Sql {
    backend: DbBackend,
    text: String,
    values: Vec<Value>,
}

impl Sql {
    pub fn new(backend: DbBackend) -> Self {
        Self { backend, text: String::with_capacity(4096), values: Vec::new() }
    }

    /// What the database speaks.
    pub const fn backend(&self) -> DbBackend {
        self.backend
    }

    /// Adds this text.
    pub fn push(&mut self, text: &str) -> &mut Self {
        self.text.push_str(text);
        self
    }

    /// Adds a parameter.
    pub fn bind(&mut self, value: Value) -> &mut Self {
        self.values.push(value);
        let _ = match self.backend {
            DbBackend::Postgres => write!(self.text, "${}", self.values.len()),
            _ => write!(self.text, "?"),
        };
        self
    }

    /// Adds the columns of a table, each as `prefix` and its name.
    pub fn columns<E: EntityTrait>(&mut self, prefix: &str) -> &mut Self {
        for (n, column) in E::Column::iter().enumerate() {
            self.push(if n == 0 { "" } else { ", " }).push(prefix).push(column.as_str());
        }
        self
    }

    /// Adds rows of a table, and further columns with a value for each row: as the body of a common table expression.
    /// PostgreSQL gets a parameter a column, so that the text is the same for every number of rows but one.
    pub fn rows<E: EntityTrait>(&mut self, rows: &[&E::Model], further: &[Vec<Value>]) -> &mut Self
    where
        E::Model: ModelTrait<Entity = E>,
    {
        match (self.backend, rows) {
            (DbBackend::Postgres, [row]) => {
                self.push("SELECT ").row::<E>(row, further.iter().map(|values| &values[0]));
            }
            (DbBackend::Postgres, rows) => {
                self.push("SELECT * FROM unnest(");
                for (n, column) in E::Column::iter().enumerate() {
                    let values = rows.iter().map(|row| row.get(column)).collect();
                    let array = Value::Array(E::Model::get_value_type(column), Some(Box::new(values)));
                    self.push(if n == 0 { "" } else { ", " }).bind(array);
                }
                for values in further {
                    let kind = values[0].array_type();
                    self.push(", ").bind(Value::Array(kind, Some(Box::new(values.clone()))));
                }
                self.push(")");
            }
            (_, rows) => {
                for (n, row) in rows.iter().enumerate() {
                    self.push(if n == 0 { "VALUES (" } else { ", (" });
                    self.row::<E>(row, further.iter().map(|values| &values[n])).push(")");
                }
            }
        }
        self
    }

    fn row<'a, E: EntityTrait>(&mut self, row: &E::Model, further: impl Iterator<Item = &'a Value>) -> &mut Self
    where
        E::Model: ModelTrait<Entity = E>,
    {
        for (n, column) in E::Column::iter().enumerate() {
            self.push(if n == 0 { "" } else { ", " }).bind(row.get(column));
        }
        for value in further {
            self.push(", ").bind(value.clone());
        }
        self
    }

    /// Adds `expression IN (…)` for these values.
    pub fn is_in<T: Into<Value> + ValueType + Clone>(&mut self, expression: &str, values: &[T]) -> &mut Self {
        self.push(expression);
        if self.backend == DbBackend::Postgres {
            let values = values.iter().cloned().map(Into::into).collect();
            return self.push(" = ANY(").bind(Value::Array(T::array_type(), Some(Box::new(values)))).push(")");
        }
        self.push(" IN (");
        for (n, value) in padded(values).enumerate() {
            self.push(if n == 0 { "" } else { ", " }).bind(value.clone().into());
        }
        self.push(")")
    }

    /// Adds `(expressions) IN (…)` for these tuples, whose elements have these types.
    pub fn tuple_is_in<const N: usize>(
        &mut self,
        expressions: &str,
        types: [ArrayType; N],
        tuples: &[[Value; N]],
    ) -> &mut Self {
        self.push("(").push(expressions).push(") IN (");
        if self.backend == DbBackend::Postgres {
            self.push("SELECT * FROM unnest(");
            for (n, kind) in types.into_iter().enumerate() {
                let values = tuples.iter().map(|tuple| tuple[n].clone()).collect();
                self.push(if n == 0 { "" } else { ", " }).bind(Value::Array(kind, Some(Box::new(values))));
            }
            return self.push("))");
        }
        self.push("SELECT * FROM ("); // of bare VALUES SQLite would compare each row of the table with the list
        for (row, tuple) in padded(tuples).enumerate() {
            self.push(if row == 0 { "VALUES (" } else { ", (" });
            for (n, value) in tuple.iter().enumerate() {
                self.push(if n == 0 { "" } else { ", " }).bind(value.clone());
            }
            self.push(")");
        }
        self.push("))")
    }

    pub fn build(self) -> Statement {
        Statement::from_sql_and_values(self.backend, self.text, self.values)
    }
}

/// The values, the last one repeated up to a power of two: so there are few texts, each of which is compiled once.
pub fn padded<T>(values: &[T]) -> impl Iterator<Item = &T> {
    let missing = values.len().next_power_of_two() - values.len();
    values.iter().chain(values.last().into_iter().cycle().take(missing))
}

/// The rows in pieces whose sizes are powers of two, at most 32: so there are few texts, each of which is compiled once.
pub fn pieces<T>(mut rows: &[T]) -> impl Iterator<Item = &[T]> {
    std::iter::from_fn(move || {
        let size = rows.len().min(32).checked_ilog2().map(|log| 1 << log)?;
        let (piece, rest) = rows.split_at(size);
        rows = rest;
        Some(piece)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_few() {
        let rows: Vec<_> = (0..77).collect();
        let sizes = |count: usize| pieces(&rows[..count]).map(<[_]>::len).collect::<Vec<_>>();
        assert_eq!((sizes(0), sizes(1), sizes(7), sizes(77)), (vec![], vec![1], vec![4, 2, 1], vec![32, 32, 8, 4, 1]));
        assert_eq!(padded(&rows[..5]).collect::<Vec<_>>(), [&0, &1, &2, &3, &4, &4, &4, &4]);
        assert_eq!(padded(&rows[..0]).count(), 0);
    }
}
