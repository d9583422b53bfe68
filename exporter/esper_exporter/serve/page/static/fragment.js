// Several rows under one key: a component that is nothing but its children.
export const Fragment = ({ children }) => children;
